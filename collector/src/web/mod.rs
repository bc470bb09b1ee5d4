//! The console: server-rendered pages for the vendor's engineers, Chinese and English, live by server-sent events. Thin: a page
//! loads through the stores, shows, and hands acts to `flow`. Agents' text reaches HTML through askama's escaping only (R11).
//!
//! A new page is one file here, one template, its texts in `locales/console.yml` and one line in `router/routes.rs`.

pub(crate) mod cookies;
pub(crate) mod assets;
pub(crate) mod shell;
pub(crate) mod upload;
pub(crate) mod sign_in;
pub(crate) mod events;
pub(crate) mod drawing;
pub(crate) mod choice;
pub(crate) mod clock_view;
pub(crate) mod overview;
pub(crate) mod grounds_view;
pub(crate) mod offers_view;
pub(crate) mod story_view;
pub(crate) mod release;
pub(crate) mod ticket;
pub(crate) mod releases;
pub(crate) mod open_ticket;
pub(crate) mod appliances;
pub(crate) mod health;
pub(crate) mod appliance;
pub(crate) mod link;
pub(crate) mod customers;
pub(crate) mod account;

pub(crate) use shell::error_page;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

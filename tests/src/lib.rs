//! A fleet harness that speaks like a user: it starts the real programs, a real database, a real mail server and a real browser
//! on this machine, and asks them what a user could ask. It must never reach into the programs' own code or tables.
//!
//! The module list is the import order: a module names only what stands above it.

pub mod patience;
pub mod seed;
pub mod process;
pub mod interception;
pub mod postgres;
pub mod postgres_door;
pub mod database;
pub mod link;
pub mod connect_proxy;
pub mod mailbox;
pub mod postfix;
pub mod scripted_mail;
pub mod s3_server;
pub mod browser;
pub mod business;
pub mod machine_clock;
pub mod wire;
pub mod ledger;
pub mod oracle;
pub mod injection;
pub mod loop_disk;
pub mod packing;
pub mod bent;
pub mod footprint;
pub mod authenticator;
pub mod collector;
pub mod cpu;
pub mod load;
pub mod null_endpoint;
pub mod agent;
pub mod desk;
pub mod captured;
pub mod vendor;
pub mod patch_box;
pub mod renewing_box;

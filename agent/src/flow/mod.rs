//! The stories of the agent: what happens, in order. Stages are passive; here they are put together.

pub(crate) mod watch;
pub(crate) mod contact;
pub(crate) mod start;
pub(crate) mod goodbye;
pub(crate) mod report;
pub(crate) mod poll;
pub(crate) mod renewal;
#[cfg(test)]
mod tests;

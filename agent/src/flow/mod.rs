//! The stories of the agent: what happens, in order. Stages are passive; here they are put together.

pub(crate) mod watch;

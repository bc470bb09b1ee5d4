//! x
mod atomic_file;
mod spool;
fn main() {}

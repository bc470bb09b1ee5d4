//! `mainstay-collector`: commands and exit codes. The module list is the path of the data and the import order: a module names
//! only what stands above it.
#![recursion_limit = "256"]

mod customers;
mod config;
mod db;
mod audit;
mod appliances;
mod faults;
mod tickets;
mod clocks;
mod notices;
mod flow;

fn main() {}

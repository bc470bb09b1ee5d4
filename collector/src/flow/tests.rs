//! Stories of faults, silence, clocks and staff, told in the process on both databases. The same stories through the front door
//! stand in the `tests` crate.

mod faults;
mod patches;
mod people;
mod silence;

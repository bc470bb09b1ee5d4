//! Proofs about the real agent on real file systems: kills, power cuts, disks that refuse. `make test` runs a seeded slice,
//! `make soak` the whole; a failing seed is printed with the command that replays it. They need root, strace and loop devices.

mod lab;
mod agent_kills;
mod agent_random_kills;
mod agent_power_cuts;
mod agent_bad_disks;
mod helper_stories;
mod helper_guesses;
mod helper_hostile_files;
mod agent_update_refused;
mod agent_link_child;
mod helper_kills;
mod helper_power_cuts;

//! Stories through the front door: the real programs, the real wire, what a user could see. One binary, to save linking; each
//! story that touches the store is told on both databases.

mod scene;
mod load;
mod oracle;
mod kills;
mod collector_kills;
mod failing_databases;
mod two_nodes;
mod enrolment;
mod limits;
mod snapshots;
mod groups;
mod agent_faults;
mod way_out;
mod guest;
mod promise;
mod mail;
mod keeping;
mod console;
mod main_job;
mod play;
mod patch_people;
mod patches;
mod bucket;
mod patch_pages;
mod patch_reports;
mod captured;
mod bad_versions;
mod own_update;

//! The engine on a simulated disk whose power goes at every operation, and again while it recovers; the verbs on real files.

mod simulated;
mod world;
mod sweep;
mod own_update;
mod refusing;

//! The harness proves itself: each fixture does what the stories believe of it. One binary, to save linking.

mod fixtures;
mod weather;

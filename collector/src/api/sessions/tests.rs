//! Sessions, asked of both databases.

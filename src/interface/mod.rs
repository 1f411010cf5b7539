//! Text in, requests out; outcomes in, text out. No decisions.

pub mod cli;

//! Connections from acc to instances: made, pooled, counted, and dropped when a gate closes.
//!
//! It never retries: it says whether the instance can have seen the request, and the caller decides.

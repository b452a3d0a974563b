//! placeholder

pub mod pack;

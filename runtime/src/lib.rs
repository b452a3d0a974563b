//! placeholder
pub mod sample;
pub mod text;

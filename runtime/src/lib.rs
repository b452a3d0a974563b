//! The room that opens a program and runs it.
pub mod attention;
pub mod dot;
pub mod exp;
pub mod gather;
pub mod gemm;
pub mod machine;
pub mod pool;
pub mod strided;
pub mod tiers;

pub use pool::{Pool, Worker};
pub use tiers::Tier;

#[cfg(test)]
mod testing;

//! Graph → graph → plan: the pipeline, the ledger, the memory planner and its independent checker.

pub mod layout;
pub mod plan;
pub mod schedule;
pub mod specialise;

//! Graph → graph → plan: the pipeline, the ledger, the memory planner and its independent checker.

pub mod plan;

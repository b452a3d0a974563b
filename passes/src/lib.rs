//! Graph → graph → plan: the pipeline, the ledger, the memory planner and its independent checker.
//!
//! [`pipeline::PIPELINE`] is the whole compiler, top to bottom. The graph passes are functions over one
//! [`llamac_ir::Graph`]; [`manager`] runs them, verifies after each, times, counts and lets an observer look. Fusing passes
//! outline instructions into regions ([`outline`]); what they fused and what they refused, and why, is the [`ledger`].
//!
//! What this crate must never do: look at the values of weights, or let a measured time decide anything.
//!
//! Data flows: imported graph → [`canonicalize`] → [`merge_linear`] → [`precision`] → [`fuse_attention`] →
//! [`fuse_epilogue`] → [`fuse_rows`] → layout → schedule → [`plan`].

pub mod cache;
pub mod canonicalize;
pub mod flat;
pub mod fuse_attention;
pub mod fuse_epilogue;
pub mod fuse_rows;
pub mod indexing;

pub mod layout;
pub mod ledger;
pub mod live;
pub mod manager;
pub mod merge_linear;
pub mod names;
pub mod options;
pub mod origin;
pub mod outline;
pub mod pipeline;
pub mod plan;
pub mod precision;
pub mod refusal;
pub mod report;
pub mod schedule;
pub mod specialise;
pub mod state_order;
pub mod traffic;

pub use manager::{Context, Finished, PassError, When};
pub use options::{Activations, CacheType, FusionSet, OptionError, Options};
pub use report::Report;

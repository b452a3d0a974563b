//! Layout, schedule, plan and checker, on hand-made graphs, random graphs and whole models.

mod check;
mod fused;
mod layout;
mod llama;
mod meaning;
mod plan;
mod random;
mod schedule;

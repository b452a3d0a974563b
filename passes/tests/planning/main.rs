//! Layout, schedule, plan and checker, on hand-made graphs and on whole models.

mod layout;
mod llama;
mod plan;

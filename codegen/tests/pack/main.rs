//! Weight packing against a naive reading of recipes and panel layouts.

mod errors;
mod finite;
mod naive;
mod plan;
mod property;
mod recipes;
mod stream;
mod tensors;

//! GGUF files: what is read of good ones, and that bad ones are refused with a clear word and no harm.

mod bad;
mod build;
mod models;
mod mutations;

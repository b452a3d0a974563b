//! The block codecs: against values that llama.cpp made, against themselves, and against llama.cpp's search.

mod edges;
mod files;
mod golden;
mod mix;
mod search;

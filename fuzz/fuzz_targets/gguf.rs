//! Bytes as a GGUF file: header, configuration, vocabulary and the places of tensors are read or refused, without harm and
//! in memory that the bytes bound.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| llamac_models::gguf::read_all(bytes));

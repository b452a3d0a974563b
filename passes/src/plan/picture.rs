//! A picture of an arena in text.

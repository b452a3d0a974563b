//! The numbers that the interpreter computes with.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// f64, the judge, or f32, what a machine would do without reordering.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// −∞
    const NEG_INFINITY: Self;
    /// Exact.
    fn from_f32(x: f32) -> Self;
    /// Exact for f32, and for every i32 in f64.
    fn from_i32(x: i32) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// Rounded to nearest even.
    fn to_f32(self) -> f32;
    /// eˣ
    fn exp(self) -> Self;
    /// √x
    fn sqrt(self) -> Self;
    /// tanh x
    fn tanh(self) -> Self;
    /// |x|
    fn abs(self) -> Self;
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            const NEG_INFINITY: Self = $t::NEG_INFINITY;
            fn from_f32(x: f32) -> Self {
                $t::from(x)
            }
            fn from_i32(x: i32) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn exp(self) -> Self {
                $t::exp(self)
            }
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            fn tanh(self) -> Self {
                $t::tanh(self)
            }
            fn abs(self) -> Self {
                $t::abs(self)
            }
        }
    };
}

real!(f32);
real!(f64);

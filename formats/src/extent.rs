//! Sizes that are known only when a step runs: a constant times the dynamic dimensions.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A dynamic dimension of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sym {
    /// `S`: rows of the step; a row is one token with its position and cache slot.
    Rows,
    /// `R`: rows whose outputs are wanted.
    Outputs,
    /// `T`: tokens present, the largest position of the step plus one.
    Tokens,
}

impl Sym {
    /// All three, in the order in which they are printed and indexed.
    pub const ALL: [Sym; 3] = [Sym::Rows, Sym::Outputs, Sym::Tokens];

    /// The letter of the text form.
    pub const fn letter(self) -> char {
        match self {
            Sym::Rows => 'S',
            Sym::Outputs => 'R',
            Sym::Tokens => 'T',
        }
    }
}

impl fmt::Display for Sym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

/// The actual values of the dynamic dimensions in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sizes {
    /// `S`.
    pub rows: usize,
    /// `R`.
    pub outputs: usize,
    /// `T`.
    pub tokens: usize,
}

impl Sizes {
    /// The value of one dimension.
    pub const fn get(&self, sym: Sym) -> usize {
        match sym {
            Sym::Rows => self.rows,
            Sym::Outputs => self.outputs,
            Sym::Tokens => self.tokens,
        }
    }
}

/// The largest values that the dynamic dimensions may take; buffers are planned at these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bounds {
    /// The chunk: the most rows of a step.
    pub rows: usize,
    /// The most outputs of a step.
    pub outputs: usize,
    /// The context: the most tokens of a slot.
    pub tokens: usize,
    /// The number of cache slots (sequences).
    pub slots: usize,
}

impl Bounds {
    /// The most slots that a model may be given.
    pub const MOST_SLOTS: usize = 1 << 16;

    /// The most sequences that a step takes together: as many as there are slots, rows of a step and outputs of one.
    pub fn sequences(&self) -> usize {
        self.slots.min(self.rows).min(self.outputs)
    }

    /// The bounds as sizes.
    pub const fn sizes(&self) -> Sizes {
        Sizes { rows: self.rows, outputs: self.outputs, tokens: self.tokens }
    }
}

/// A monomial: `factor × S^a × R^b × T^c` with small exponents. Element counts, strides and trip counts are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    /// The constant factor.
    pub factor: u64,
    /// Exponents of `S`, `R`, `T`.
    pub powers: [u8; 3],
}

impl Extent {
    /// 1.
    pub const ONE: Extent = Extent::constant(1);
    /// 0.
    pub const ZERO: Extent = Extent::constant(0);

    /// A constant.
    pub const fn constant(factor: u64) -> Extent {
        Extent { factor, powers: [0; 3] }
    }

    /// One dynamic dimension.
    pub const fn sym(sym: Sym) -> Extent {
        let mut powers = [0; 3];
        powers[sym as usize] = 1;
        Extent { factor: 1, powers }
    }

    /// The product of two.
    pub fn times(self, other: Extent) -> Extent {
        if self.factor == 0 || other.factor == 0 {
            return Extent::ZERO;
        }
        Extent {
            factor: self.factor.saturating_mul(other.factor),
            powers: std::array::from_fn(|i| self.powers[i] + other.powers[i]),
        }
    }

    /// The constant, if no dynamic dimension occurs.
    pub fn as_constant(self) -> Option<u64> {
        (self.powers == [0; 3]).then_some(self.factor)
    }

    /// The value for actual sizes (saturating).
    pub fn value(self, sizes: &Sizes) -> usize {
        let mut v = self.factor as usize;
        for sym in Sym::ALL {
            for _ in 0..self.powers[sym as usize] {
                v = v.saturating_mul(sizes.get(sym));
            }
        }
        v
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        if self.factor != 1 || self.powers == [0; 3] {
            write!(f, "{}", self.factor)?;
            first = false;
        }
        for sym in Sym::ALL {
            for _ in 0..self.powers[sym as usize] {
                write!(f, "{}{sym}", if first { "" } else { "*" })?;
                first = false;
            }
        }
        Ok(())
    }
}

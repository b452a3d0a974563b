//! Why an edge between two kernels stays.

use std::fmt;

/// The reason, typed. [`Reason::rule`] is the sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Other instructions need the value as well, and this kind of kernel has one result.
    MultipleUses,
    /// The graph returns the value, and this kind of kernel has one result.
    OutputOfGraph,
    /// A reduction, or something that waits for one, reads results of several tiles.
    ReductionAcrossTiles,
    /// The two run over different rows.
    RowSpaceDiffers,
    /// An index between the two would need a division.
    NotAffine,
    /// A dot reads the value.
    DotOperand,
    /// A dot or attention over activations makes the value.
    DotResult,
    /// A kernel of the runtime reads the value beside its dot.
    TileOperand,
    /// The value indexes something, or is indexed.
    RandomAccess,
    /// The state must be written before it is read, or read before it is written.
    StateOrder,
    /// A packed weight makes the value.
    PackedWeight,
    /// The value would be computed again for every element that repeats it.
    Recompute,
    /// The kernel would wait for itself.
    WouldCycle,
    /// The dot's segments are of different widths.
    SegmentsDiffer,
    /// The value is made in whole blocks of a row.
    WholeBlocks,
    /// The op has no form on a tile.
    NotElementwise,
    /// The kernel would become too large.
    TooLarge,
    /// What is between two dots over a cache is not causal softmax.
    NotAttention,
    /// `--fusion` or `--disable` leaves out the pass that would have fused it.
    DisabledByOption(&'static str),
}

impl Reason {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::MultipleUses => "multiple-uses",
            Reason::OutputOfGraph => "output-of-graph",
            Reason::ReductionAcrossTiles => "reduction-across-tiles",
            Reason::RowSpaceDiffers => "row-space-differs",
            Reason::NotAffine => "not-affine",
            Reason::DotOperand => "dot-operand",
            Reason::DotResult => "dot-result",
            Reason::TileOperand => "tile-operand",
            Reason::RandomAccess => "random-access",
            Reason::StateOrder => "state-order",
            Reason::PackedWeight => "packed-weight",
            Reason::Recompute => "recompute",
            Reason::WouldCycle => "would-cycle",
            Reason::SegmentsDiffer => "segments-differ",
            Reason::WholeBlocks => "whole-blocks",
            Reason::NotElementwise => "not-elementwise",
            Reason::TooLarge => "too-large",
            Reason::NotAttention => "not-attention",
            Reason::DisabledByOption(_) => "disabled-by-option",
        }
    }

    /// The rule, in a sentence.
    pub const fn rule(self) -> &'static str {
        match self {
            Reason::MultipleUses => "a kernel with tiles has one result, and more than the fused chain needs this one",
            Reason::OutputOfGraph => "a kernel with tiles has one result, and the graph returns this one",
            Reason::ReductionAcrossTiles => "a reduction needs whole rows; a tile holds a part of them",
            Reason::RowSpaceDiffers => {
                "a row kernel runs over one space of rows, reduces only what lies inside of a row, and all its results have the same axes"
            }
            Reason::NotAffine => {
                "a value computed in a kernel is read by sums of multiples of indices, never by division"
            }
            Reason::DotOperand => "a dot reads its operands from memory, each many times",
            Reason::DotResult => {
                "a dot over activations or a cache stores its result; only a dot with weights has an epilogue"
            }
            Reason::TileOperand => "an epilogue holds what depends on its dot; its other operands come from memory",
            Reason::RandomAccess => "what is indexed, and what indexes, lies in memory",
            Reason::StateOrder => "a state is written whole before it is read, and read before it is written again",
            Reason::PackedWeight => "rows of a packed weight are unpacked by a routine of the runtime",
            Reason::Recompute => "transcendentals and reductions are never computed twice for one element",
            Reason::WouldCycle => "something between the two needs the one and is needed by the other",
            Reason::SegmentsDiffer => "a tile holds the same columns of every segment, so segments are equally wide",
            Reason::WholeBlocks => {
                "blocks are made of finished stretches of a row by a row kernel, and read by dots; a tile holds a part of a row"
            }
            Reason::NotElementwise => "an epilogue works on each element by itself",
            Reason::TooLarge => "a kernel holds a bounded number of instructions",
            Reason::NotAttention => {
                "tiled attention is exactly causal softmax over the tokens up to the row's position"
            }
            Reason::DisabledByOption(_) => "the pass that fuses it is switched off",
        }
    }
}

/// `disabled-by-option fuse-rows`, or just the name.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::DisabledByOption(pass) => write!(f, "{} {pass}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}

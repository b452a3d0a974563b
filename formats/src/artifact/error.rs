//! What can be wrong with the header of an artifact.

use super::FORMAT_VERSION;
use thiserror::Error;

/// Why bytes are no header. The caller puts the file's name in front.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Another kind of file.
    #[error("it is no llamac artifact: it does not begin with the artifact's magic; make one with `llamac compile`")]
    Format,
    /// Another version of the container.
    #[error(
        "it has artifact format {found}, this llamac reads format {FORMAT_VERSION}: compile the model again with this \
         llamac, or run it with the one that made it"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// Less than a header, or bytes that are none.
    #[error("its header is damaged ({what}): copy the file again, or compile the model again")]
    Damaged {
        /// What does not hold.
        what: String,
    },
    /// Another length than the header says.
    #[error("it has {found} bytes where {expected} were written: copy the file again, or compile the model again")]
    Length {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// A section table that cannot be right.
    #[error("its section table is wrong ({what}): copy the file again, or compile the model again")]
    Sections {
        /// What does not hold.
        what: String,
    },
}

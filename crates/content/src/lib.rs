//! Messages as skeletons and parts, and their bytes packed for a thin line. Pure: bytes in, bytes out.
//!
//! Keeps true: what is rebuilt is what was split, octet for octet, whatever the message looks like; nothing needs memory for a whole
//! message; a packed stream yields no more than it stated.
//! Not here: what the other side has (`gateway-source`), where parts rest (`gateway-recovery`).

mod layout;
mod octets;
mod packing;
mod recipe;
mod sample;
mod scan;
mod seen;
mod split;
mod window;
mod wrapping;

pub use layout::{Layout, Need, Source};
pub use octets::Octets;
pub use packing::{Packer, PackingError, Unpacker, is_packed};
pub use recipe::{MAX_RECIPE_BYTES, Piece, Recipe, RecipeError};
pub use sample::compresses;
pub use seen::Seen;
pub use split::{Cut, LEAST_BASE64, LEAST_RAW, LONGEST_PART, Split, copy, split};
pub use wrapping::Wrapping;

//! The chunked transfer coding (RFC 9112 section 7.1), scanned in bytes that may be cut anywhere.

/// The bytes are not HTTP/1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotHttp;

/// How far a chunked body is. What follows a chunk's size is as strict as in hyper: a scanner that disagrees about the end of a body
/// would wait without limit, or close a connection that is in use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size(u64),
    /// Behind the digits of a size.
    AfterSize(u64),
    Extension(u64),
    SizeEnd(u64),
    /// The bytes that are left of a chunk.
    Data(u64),
    DataEnd,
    DataLineFeed,
    /// At the beginning of a line behind the last chunk: a trailer field, or the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastLineFeed,
}

impl Chunks {
    /// Takes some of `data`. Returns whether the body has ended.
    pub(super) fn scan(&mut self, data: &mut &[u8]) -> Result<bool, NotHttp> {
        if let Self::Data(left) = self {
            if skip(data, left) {
                *self = Self::DataEnd;
            }
            return Ok(false);
        }
        let Some((&byte, rest)) = data.split_first() else { return Ok(false) };
        *data = rest;
        *self = match (&*self, byte) {
            (Self::Start, digit) => Self::Size(add_digit(0, digit)?),
            (&Self::Size(size) | &Self::AfterSize(size), b'\t' | b' ') => Self::AfterSize(size),
            (&Self::Size(size) | &Self::AfterSize(size), b';') => Self::Extension(size),
            (&Self::Size(size) | &Self::AfterSize(size) | &Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (&Self::Size(size), digit) => Self::Size(add_digit(size, digit)?),
            (&Self::Extension(size), byte) if byte != b'\n' => Self::Extension(size),
            (&Self::SizeEnd(0), b'\n') => Self::TrailerStart,
            (&Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataEnd, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::Start,
            (Self::TrailerStart, b'\r') => Self::LastLineFeed,
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            (Self::TrailerStart | Self::Trailer, _) => Self::Trailer,
            (Self::TrailerEnd, b'\n') => Self::TrailerStart,
            (Self::LastLineFeed, b'\n') => return Ok(true),
            _ => return Err(NotHttp),
        };
        Ok(false)
    }
}

/// Takes bytes of `data`, `left` at most. Returns whether nothing is left.
pub(super) fn skip(data: &mut &[u8], left: &mut u64) -> bool {
    let amount = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
    *data = &data[amount..];
    *left -= amount as u64;
    *left == 0
}

fn add_digit(size: u64, digit: u8) -> Result<u64, NotHttp> {
    let digit = char::from(digit).to_digit(16).ok_or(NotHttp)?;
    size.checked_mul(16).and_then(|size| size.checked_add(digit.into())).ok_or(NotHttp)
}

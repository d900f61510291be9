//! Files made from bytes.

/// One entry of `files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The content.
    pub data: Vec<u8>,
    /// Default 0644.
    pub mode: u32,
}

impl File {
    /// The mode of a file for which none is given.
    pub const MODE: u32 = 0o644;

    /// A file of mode 0644.
    pub fn new(data: impl Into<Vec<u8>>) -> Self {
        Self { data: data.into(), mode: Self::MODE }
    }

    /// Another mode.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

impl From<&str> for File {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for File {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&[u8]> for File {
    fn from(data: &[u8]) -> Self {
        Self::new(data)
    }
}

impl From<Vec<u8>> for File {
    fn from(data: Vec<u8>) -> Self {
        Self::new(data)
    }
}

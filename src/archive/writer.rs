//! Writes a backup tarball in Velero's format 1.1 (restore-semantics 2.2), streaming.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tar::{Builder, EntryType, Header};

use super::layout;
use crate::model::GroupResource;

/// How a tarball is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// gzip's level, 0 to 9. Default 6, as Velero's.
    pub level: u32,
    /// Time of the entries in seconds since 1970; default 0, so that equal items make an equal tarball.
    pub modified: u64,
    /// Whether each item is written a second time below `<version>-preferredversion/`. Default true, as in format 1.1.
    pub copies: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { level: 6, modified: 0, copies: true }
    }
}

/// A backup tarball that is being written to any [`Write`].
///
/// ```
/// use reprise::archive::{Archive, ReadOptions, Writer};
/// use serde_json::json;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut writer = Writer::new(Vec::new())?;
/// writer.item(&"pods".into(), &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}}))?;
/// let tarball = writer.finish()?;
///
/// let archive = Archive::read(&tarball[..], &ReadOptions::default())?;
/// assert_eq!((archive.stats().items, archive.stats().skipped_copies), (1, 1));
/// # Ok(())
/// # }
/// ```
pub struct Writer<W: Write> {
    tar: Builder<GzEncoder<W>>,
    options: WriterOptions,
    json: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a tarball with `metadata/version`.
    ///
    /// # Errors
    /// Those of the output.
    pub fn new(output: W) -> io::Result<Self> {
        Self::with_options(output, WriterOptions::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// Those of the output.
    pub fn with_options(output: W, options: WriterOptions) -> io::Result<Self> {
        let mut writer = Self::bare(output, options);
        writer.file("metadata/version", b"1.1.0\n")?;
        Ok(writer)
    }

    /// A tarball with nothing in it.
    pub(super) fn bare(output: W, options: WriterOptions) -> Self {
        let tar = Builder::new(GzEncoder::new(output, Compression::new(options.level.min(9))));
        Self { tar, options, json: Vec::new() }
    }

    /// Adds an object, twice, at the paths that its metadata and `apiVersion` say.
    ///
    /// # Errors
    /// Those of the output; `InvalidInput` for an object without a name.
    pub fn item(&mut self, group_resource: &GroupResource, object: &Value) -> io::Result<()> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
        if name.is_empty() {
            let message = format!("an object of {group_resource} has no metadata.name");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let api_version = text("/apiVersion");
        let version = api_version.rsplit('/').next().unwrap_or(api_version);
        let group_resource = group_resource.as_str();

        let mut json = std::mem::take(&mut self.json);
        json.clear();
        serde_json::to_writer(&mut json, object)?;
        let mut written = self.file(&layout::item_path(group_resource, namespace, name), &json);
        if written.is_ok() && self.options.copies && !version.is_empty() {
            written = self.file(&layout::copy_path(group_resource, version, namespace, name), &json);
        }
        self.json = json;
        written
    }

    /// Adds a file, whatever it is.
    ///
    /// # Errors
    /// Those of the output.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut header = self.header(EntryType::Regular, content.len() as u64);
        self.tar.append_data(&mut header, path, content)
    }

    /// Adds an entry without content: a directory, a link; and takes any path, also one that leaves the root.
    pub(super) fn entry(&mut self, entry_type: EntryType, path: &[u8], content: &[u8]) -> io::Result<()> {
        let mut header = self.header(entry_type, content.len() as u64);
        let field = &mut header.as_old_mut().name;
        let room = field.get_mut(..path.len()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        room.copy_from_slice(path);
        header.set_cksum();
        self.tar.append(&header, content)
    }

    fn header(&self, entry_type: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry_type);
        header.set_mode(0o755);
        header.set_mtime(self.options.modified);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header
    }

    /// Writes the end marks and hands the output back.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(self) -> io::Result<W> {
        self.tar.into_inner()?.finish()
    }
}

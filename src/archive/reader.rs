//! The one pass over a tarball.

use std::borrow::Cow;
use std::io::Read;

use super::index::{Found, Indexing};
use super::layout::{self, Place};
use super::limits::DEEPEST;
use super::source::Gunzip;
use super::spool::Writing;
use super::tarball::{Kind, Tarball};
use super::versions::{Versions, group};
use super::{Archive, Damage, Error, NameCheck, ReadOptions, Stats, header};

/// The text of `metadata/version` is six bytes; nobody needs more of it than this.
const FORMAT_VERSION_BYTES: u64 = 64;

pub(super) fn read<R: Read>(input: R, options: &ReadOptions) -> Result<Archive, Error> {
    let mut pass = Pass {
        options,
        spool: Writing::create(options.spool_dir.as_deref(), options.limits.free_bytes)?,
        index: Indexing::new(options.limits.index_bytes),
        versions: Indexing::new(options.limits.index_bytes),
        last: None,
        stats: Stats::default(),
        has_resources: false,
    };
    let gunzip = Gunzip::new(input, options.limits, options.cancelled.clone());
    let mut tarball = Tarball::new(gunzip, options.limits);
    while let Some(kind) = tarball.next()? {
        pass.entry(&mut tarball, kind)?;
    }
    tarball.drain()?;

    let Pass { spool, index, versions, mut stats, has_resources, .. } = pass;
    (stats.compressed_bytes, stats.uncompressed_bytes) = tarball.gunzip().bytes();
    stats.spooled_bytes = spool.len();
    stats.trailing_garbage = tarball.gunzip().trailing_garbage();
    let index = index.finish();
    let versions = Versions::new(versions.finish());
    stats.items = index.len() as u64;
    if stats.links + stats.unexpected > 0 {
        tracing::warn!(links = stats.links, unexpected = stats.unexpected, "entries of the backup tarball are ignored");
    }
    if stats.trailing_garbage {
        tracing::warn!("something that is no gzip follows the backup tarball and is ignored");
    }
    Ok(Archive { index, versions, spool: spool.finish()?, stats, has_resources })
}

struct Pass<'a> {
    options: &'a ReadOptions,
    spool: Writing,
    index: Indexing,
    /// The copies in version directories, where they are kept.
    versions: Indexing,
    /// What was spooled last and where, to see that a copy is one; only where copies are kept.
    last: Option<(u64, Vec<u8>)>,
    stats: Stats,
    has_resources: bool,
}

impl Pass<'_> {
    fn entry<R: Read>(&mut self, tarball: &mut Tarball<R>, kind: Kind) -> Result<(), Error> {
        self.stats.entries += 1;
        let raw = tarball.path()?;
        let escapes = || Error::EscapesRoot { path: raw.to_owned() };
        let path = layout::clean(raw).ok_or_else(escapes)?;
        let place = layout::place(&path);
        if kind == Kind::Other {
            self.stats.links += 1;
            tracing::debug!(path = raw, "a link or device in the backup tarball is ignored");
            return Ok(());
        }
        if kind == Kind::Directory {
            self.has_resources |= !matches!(place, Place::Outside | Place::FormatVersion);
            return Ok(());
        }
        self.has_resources |= !matches!(place, Place::Outside | Place::FormatVersion | Place::Resources);
        match place {
            Place::Item { .. } => {
                // The path is needed beside the content, which lies in the same reader.
                let path = path.into_owned();
                if let Place::Item { group_resource, namespace, file } = layout::place(&path) {
                    self.item(tarball, &path, (group_resource, namespace, file), false)?;
                }
            }
            Place::Version { item: Some(_), .. } if self.options.keep_versions => {
                let path = path.into_owned();
                if let Place::Version { group_resource, directory, item: Some((namespace, file)) } =
                    layout::place(&path)
                {
                    self.stats.kept_copies += 1;
                    self.item(tarball, &path, (&group(group_resource, directory), namespace, file), true)?;
                }
            }
            Place::Version { .. } => self.stats.skipped_copies += 1,
            Place::FormatVersion => {
                if tarball.size() <= FORMAT_VERSION_BYTES {
                    let text = String::from_utf8_lossy(tarball.content()?).trim().to_owned();
                    self.stats.format_version = Some(text);
                }
            }
            Place::Unexpected | Place::Resources => {
                self.stats.unexpected += 1;
                tracing::debug!(path = raw, "an unexpected file in the backup tarball is ignored");
            }
            Place::Outside => {}
        }
        Ok(())
    }

    /// Adds a file to the items, or to the copies, whose group is one of [`super::versions`].
    fn item<R: Read>(
        &mut self,
        tarball: &mut Tarball<R>,
        path: &str,
        place: (&str, &str, &str),
        is_copy: bool,
    ) -> Result<(), Error> {
        let (group, _, file) = place;
        let group_resource = group.split('/').next().unwrap_or(group);
        let index = if is_copy { &mut self.versions } else { &mut self.index };
        let keep_labels = self.options.keep_labels;
        let Some(name) = file.strip_suffix(layout::SUFFIX) else {
            let damage = Damage::NotFound { path: format!("{path}{}", layout::SUFFIX) };
            return index.add(path, place, Found::Damage(damage), keep_labels);
        };
        // Go replaces what is not UTF-8 in strings, and so do we.
        let text: Cow<'_, str> = String::from_utf8_lossy(tarball.content()?);
        let depth = self.options.limits.json_depth.min(DEEPEST);
        let found = match header::skim(&text, keep_labels, depth) {
            Ok(skimmed) => match skimmed.name.as_deref().filter(|&inner| inner != name) {
                Some(inner) if self.options.names == NameCheck::Refuse => {
                    Found::Damage(Damage::NameDisagrees { name: name.to_owned(), inner: inner.to_owned() })
                }
                inner => {
                    let inner_name = inner.map(Box::from);
                    let completed = is_completed(group_resource, &skimmed);
                    let offset = if self.options.keep_versions {
                        append_once(&mut self.spool, &mut self.last, text.as_bytes())?
                    } else {
                        self.spool.append(text.as_bytes())?
                    };
                    let len = u32::try_from(text.len()).map_err(|_| Error::Limit {
                        which: "item_bytes",
                        limit: u64::from(u32::MAX),
                        entry: Some(path.to_owned()),
                    })?;
                    Found::Header { skimmed, completed, offset, len, inner_name }
                }
            },
            Err(damage) => Found::Damage(damage),
        };
        index.add(path, place, found, keep_labels)
    }
}

/// Appends what differs from what was appended last.
fn append_once(spool: &mut Writing, last: &mut Option<(u64, Vec<u8>)>, text: &[u8]) -> Result<u64, Error> {
    match last {
        Some((offset, before)) if before == text => Ok(*offset),
        Some((offset, before)) => {
            *offset = spool.append(text)?;
            before.clear();
            before.extend_from_slice(text);
            Ok(*offset)
        }
        None => {
            let offset = spool.append(text)?;
            *last = Some((offset, text.to_owned()));
            Ok(offset)
        }
    }
}

/// Whether Velero leaves the item out because it is done (restore-semantics 5.3): a pod that ended, a job that completed.
fn is_completed(group_resource: &str, skimmed: &header::Skimmed<'_>) -> bool {
    match group_resource {
        "pods" => matches!(skimmed.phase.as_deref(), Some("Succeeded" | "Failed")),
        "jobs.batch" => skimmed.completion_time.as_deref().is_some_and(|time| !time.is_empty()),
        _ => false,
    }
}

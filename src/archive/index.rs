//! The index: what is in the archive, sorted, in a few dozen bytes per item.
//!
//! Names lie end to end in one string, equal headers are kept once, and what most items do not have (damage, another name
//! inside) is kept aside by item.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

use super::header::Skimmed;
use super::{Damage, Error, Header, Labels, layout};
use crate::model::GroupResource;

/// One file of the archive. 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Where the JSON begins in the spool.
    pub(super) offset: u64,
    pub(super) len: u32,
    /// Number of the header; [`DAMAGED`] when the item has a damage instead.
    pub(super) header: u32,
    scope: u32,
    file_at: u32,
    file_len: u32,
    /// The number by which damage and inner names are kept.
    pub(super) arrival: u32,
}

const DAMAGED: u32 = u32::MAX;

/// The items of one namespace (or of the cluster) in one group-resource.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) group: u32,
    pub(super) namespace: Arc<str>,
    pub(super) records: Range<u32>,
}

/// The index when reading is done.
#[derive(Debug)]
pub(super) struct Index {
    records: Vec<Record>,
    files: String,
    pub(super) scopes: Vec<Scope>,
    pub(super) groups: Vec<(GroupResource, Range<usize>)>,
    headers: Vec<Header>,
    damages: HashMap<u32, Damage>,
    inner_names: HashMap<u32, Box<str>>,
}

/// The index while the archive is read, in the order of arrival.
pub(super) struct Indexing {
    records: Vec<Record>,
    files: String,
    scopes: HashMap<Box<str>, u32>,
    places: Vec<(Arc<str>, Arc<str>)>,
    last_scope: Option<(Box<str>, u32)>,
    headers: Headers,
    damages: HashMap<u32, Damage>,
    inner_names: HashMap<u32, Box<str>>,
    texts: Texts,
    bytes: u64,
    limit: u64,
}

/// What was found of an item.
pub(super) enum Found<'a> {
    Header { skimmed: Skimmed<'a>, completed: bool, offset: u64, len: u32, inner_name: Option<Box<str>> },
    Damage(Damage),
}

impl Indexing {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            records: Vec::new(),
            files: String::new(),
            scopes: HashMap::new(),
            places: Vec::new(),
            last_scope: None,
            headers: Headers::default(),
            damages: HashMap::new(),
            inner_names: HashMap::new(),
            texts: Texts::default(),
            bytes: 0,
            limit,
        }
    }

    /// Adds a file; a later one of the same path replaces it.
    pub(super) fn add(
        &mut self,
        path: &str,
        (group_resource, namespace, file): (&str, &str, &str),
        found: Found<'_>,
        keep_labels: bool,
    ) -> Result<(), Error> {
        let scope = self.scope(path, group_resource, namespace, file)?;
        let too_large =
            || Error::Limit { which: "index_bytes", limit: u64::from(u32::MAX), entry: Some(path.to_owned()) };
        let file_at = u32::try_from(self.files.len()).map_err(|_| too_large())?;
        let file_len = u32::try_from(file.len()).map_err(|_| too_large())?;
        let arrival = u32::try_from(self.records.len()).map_err(|_| too_large())?;
        self.spend(file.len() + size_of::<Record>(), path)?;
        self.files.push_str(file);
        let mut record = Record { offset: 0, len: 0, header: DAMAGED, scope, file_at, file_len, arrival };
        match found {
            Found::Header { skimmed, completed, offset, len, inner_name } => {
                let cost = self.headers.len();
                record.header = self.headers.intern(&skimmed, completed, keep_labels, &mut self.texts);
                if self.headers.len() > cost {
                    let labels: usize = skimmed.labels.iter().map(|(key, value)| key.len() + value.len() + 64).sum();
                    self.spend(labels + size_of::<Header>(), path)?;
                }
                (record.offset, record.len) = (offset, len);
                if let Some(name) = inner_name {
                    self.spend(name.len() + 64, path)?;
                    self.inner_names.insert(arrival, name);
                }
            }
            Found::Damage(damage) => {
                self.spend(damage.to_string().len() + 64, path)?;
                self.damages.insert(arrival, damage);
            }
        }
        self.records.push(record);
        Ok(())
    }

    fn spend(&mut self, bytes: usize, path: &str) -> Result<(), Error> {
        self.bytes += bytes as u64;
        if self.bytes > self.limit {
            return Err(Error::Limit { which: "index_bytes", limit: self.limit, entry: Some(path.to_owned()) });
        }
        Ok(())
    }

    /// The number of the directory that a file is in. Files of a directory come one after the other, as a rule.
    fn scope(&mut self, path: &str, group_resource: &str, namespace: &str, file: &str) -> Result<u32, Error> {
        let directory = path.strip_suffix(file).unwrap_or(path);
        if let Some((last, scope)) = &self.last_scope
            && **last == *directory
        {
            return Ok(*scope);
        }
        let scope = if let Some(&scope) = self.scopes.get(directory) {
            scope
        } else {
            self.spend(directory.len() * 2 + 128, path)?;
            let scope = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            self.places.push((self.texts.intern(group_resource), self.texts.intern(namespace)));
            self.scopes.insert(directory.into(), scope);
            scope
        };
        self.last_scope = Some((directory.into(), scope));
        Ok(scope)
    }

    /// Sorts by group-resource, namespace and file name, and drops what was overwritten.
    pub(super) fn finish(self) -> Index {
        let Self { mut records, mut files, places, headers, damages, inner_names, .. } = self;
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_unstable_by(|&a, &b| places[a].cmp(&places[b]));
        let mut rank = vec![0_u32; places.len()];
        for (at, &place) in (0_u32..).zip(&order) {
            rank[place] = at;
        }
        for record in &mut records {
            record.scope = rank[record.scope as usize];
        }
        let name = |record: &Record| &files.as_bytes()[record.file_at as usize..][..record.file_len as usize];
        records.sort_unstable_by(|a, b| {
            // The last to arrive first, so that it is the one that deduplication keeps.
            (a.scope, name(a)).cmp(&(b.scope, name(b))).then(b.arrival.cmp(&a.arrival))
        });
        records.dedup_by(|later, kept| kept.scope == later.scope && name(kept) == name(later));
        drop_shadowed(&mut records, &files);
        records.shrink_to_fit();
        files.shrink_to_fit();

        let mut scopes: Vec<Scope> = Vec::new();
        let mut groups: Vec<(GroupResource, Range<usize>)> = Vec::new();
        let mut from = 0;
        for same in records.chunk_by(|a, b| a.scope == b.scope) {
            let to = from + u32::try_from(same.len()).unwrap_or(u32::MAX);
            let (group_resource, namespace) = &places[order[same[0].scope as usize]];
            match groups.last_mut() {
                Some((last, range)) if *last == **group_resource => range.end += 1,
                _ => groups.push((GroupResource::parse(group_resource), scopes.len()..scopes.len() + 1)),
            }
            let group = u32::try_from(groups.len() - 1).unwrap_or(u32::MAX);
            scopes.push(Scope { group, namespace: Arc::clone(namespace), records: from..to });
            from = to;
        }
        // From here on a record's scope is its place among the scopes that are left.
        for (at, scope) in (0_u32..).zip(&scopes) {
            for record in &mut records[scope.records.start as usize..scope.records.end as usize] {
                record.scope = at;
            }
        }
        Index { records, files, scopes, groups, headers: headers.all, damages, inner_names }
    }
}

/// Drops the file `x` where there is also `x.json`: both are listed as `x`, and Velero opens `x.json` for either.
fn drop_shadowed(records: &mut Vec<Record>, files: &str) {
    let file = |record: &Record| &files[record.file_at as usize..][..record.file_len as usize];
    let without_suffix = records.iter().filter(|record| !file(record).ends_with(layout::SUFFIX));
    let shadowed: HashSet<u32> = without_suffix
        .filter(|bare| {
            let sought = format!("{}{}", file(bare), layout::SUFFIX);
            records.binary_search_by(|record| (record.scope, file(record)).cmp(&(bare.scope, sought.as_str()))).is_ok()
        })
        .map(|record| record.arrival)
        .collect();
    if !shadowed.is_empty() {
        records.retain(|record| !shadowed.contains(&record.arrival));
    }
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn record(&self, id: u32) -> &Record {
        &self.records[id as usize]
    }

    pub(super) fn file(&self, record: &Record) -> &str {
        &self.files[record.file_at as usize..][..record.file_len as usize]
    }

    pub(super) fn scope_of(&self, record: &Record) -> &Scope {
        &self.scopes[record.scope as usize]
    }

    pub(super) fn header(&self, record: &Record) -> Result<&Header, &Damage> {
        match self.damages.get(&record.arrival) {
            Some(damage) => Err(damage),
            None => Ok(&self.headers[record.header as usize]),
        }
    }

    pub(super) fn inner_name(&self, record: &Record) -> Option<&str> {
        self.inner_names.get(&record.arrival).map(|name| &**name)
    }

    pub(super) fn scopes_of(&self, group_resource: &GroupResource) -> &[Scope] {
        match self.groups.binary_search_by(|(group, _)| group.as_str().cmp(group_resource.as_str())) {
            Ok(at) => &self.scopes[self.groups[at].1.clone()],
            Err(_) => &[],
        }
    }

    /// The item whose file is `<name>.json`.
    pub(super) fn find(&self, group_resource: &GroupResource, namespace: &str, name: &str) -> Option<u32> {
        let scopes = self.scopes_of(group_resource);
        let at = scopes.binary_search_by(|scope| (*scope.namespace).cmp(namespace)).ok()?;
        let range = scopes[at].records.clone();
        let records = &self.records[range.start as usize..range.end as usize];
        let found = records
            .binary_search_by(|record| self.file(record).bytes().cmp(name.bytes().chain(layout::SUFFIX.bytes())));
        found.ok().and_then(|at| u32::try_from(at).ok()).map(|at| range.start + at)
    }
}

/// Equal headers once: without labels there are about as many as there are kinds.
#[derive(Default)]
struct Headers {
    all: Vec<Header>,
    by_hash: HashMap<u64, u32>,
    last: Option<u32>,
    state: RandomState,
}

impl Headers {
    fn len(&self) -> usize {
        self.all.len()
    }

    fn intern(&mut self, skimmed: &Skimmed<'_>, completed: bool, keep_labels: bool, texts: &mut Texts) -> u32 {
        let labels: Option<BTreeMap<&str, &str>> = keep_labels.then(|| {
            // The last of equal keys counts, as in Go.
            skimmed.labels.iter().map(|(key, value)| (&**key, &**value)).collect()
        });
        let is_same = |header: &Header| {
            header.completed == completed
                && *header.kind == *skimmed.kind
                && *header.api_version == *skimmed.api_version
                && match (&header.labels, &labels) {
                    (Some(kept), Some(labels)) => kept.iter().eq(labels.iter().map(|(key, value)| (*key, *value))),
                    (None, None) => true,
                    _ => false,
                }
        };
        if let Some(last) = self.last
            && is_same(&self.all[last as usize])
        {
            return last;
        }
        let hash = self.state.hash_one((&skimmed.kind, &skimmed.api_version, completed, &labels));
        let known = self.by_hash.get(&hash).copied().filter(|&at| is_same(&self.all[at as usize]));
        let at = known.unwrap_or_else(|| {
            let at = u32::try_from(self.all.len()).unwrap_or(DAMAGED - 1);
            let labels = labels.map(|labels| {
                Labels(labels.into_iter().map(|(key, value)| (texts.intern(key), texts.intern(value))).collect())
            });
            self.all.push(Header {
                api_version: texts.intern(&skimmed.api_version),
                kind: texts.intern(&skimmed.kind),
                labels,
                completed,
            });
            self.by_hash.insert(hash, at);
            at
        });
        self.last = Some(at);
        at
    }
}

/// Equal texts once.
#[derive(Default)]
struct Texts(HashSet<Arc<str>>);

impl Texts {
    fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.0.insert(Arc::clone(&new));
        new
    }
}

//! Velero's API types (`velero.io`), as data.
//!
//! They are written as Velero writes them and read more kindly: every list, map and text takes `null`, unknown fields
//! are passed over, and phases are texts, so that no object of a newer Velero stops a watch. Durations are kept as the
//! Go text they were given in (`1h` stays `1h`, restore-semantics 1.1); [`crate::model::GoDuration`] reads them.

pub mod backup;
pub mod backup_repository;
pub mod backup_storage_location;
mod crds;
pub mod data_download;
pub mod data_upload;
pub mod download_request;
mod fields;
pub mod pod_volume_backup;
pub mod pod_volume_restore;
pub mod restore;
pub mod restore_hooks;
pub mod volume_info;
pub mod volume_snapshot_location;

pub use backup::{Backup, BackupSpec, BackupStatus};
pub use backup_repository::{BackupRepository, BackupRepositorySpec, BackupRepositoryStatus};
pub use backup_storage_location::{
    BackupStorageLocation, BackupStorageLocationSpec, BackupStorageLocationStatus, ObjectStorageLocation,
    SecretKeySelector,
};
pub use crds::crds;
pub use data_download::{DataDownload, DataDownloadSpec, DataDownloadStatus};
pub use data_upload::{DataUpload, DataUploadSpec, DataUploadStatus};
pub use download_request::{DownloadRequest, DownloadRequestSpec, DownloadRequestStatus, DownloadTarget};
pub use fields::HookStatus;
pub use pod_volume_backup::{PodVolumeBackup, PodVolumeBackupSpec, PodVolumeBackupStatus};
pub use pod_volume_restore::{PodVolumeRestore, PodVolumeRestoreSpec, PodVolumeRestoreStatus};
pub use restore::{Restore, RestoreSpec, RestoreStatus};
pub use volume_snapshot_location::{VolumeSnapshotLocation, VolumeSnapshotLocationSpec, VolumeSnapshotLocationStatus};

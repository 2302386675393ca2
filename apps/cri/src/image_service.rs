//! CRI's image service. Every image exists here, because no image is ever opened.
//!
//! [`image`](mod@crate::image) normalises the name of an image, which is also its id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tonic::{Request, Response, Status};

use crate::image::name;
use crate::store::Store;
use crate::time::nanos;
use crate::v1::image_service_server::ImageService;
use crate::v1::{
    FilesystemIdentifier, FilesystemUsage, Image, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec,
    ImageStatusRequest, ImageStatusResponse, ListImagesRequest, ListImagesResponse, PullImageRequest,
    PullImageResponse, RemoveImageRequest, RemoveImageResponse, UInt64Value,
};

/// The size of every image. The kubelet takes an image of size zero for a missing one.
const SIZE: u64 = 1;

#[derive(Debug)]
pub(crate) struct Images {
    store: Arc<Store>,
}

impl Images {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image).map(|image| name(&image.image));
        let images = self.store.images().into_iter();
        let images = images.filter(|image| wanted.as_ref().is_none_or(|wanted| wanted.is_empty() || wanted == image));
        Ok(Response::new(ListImagesResponse { images: images.map(image).collect() }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let image = image(named(request.into_inner().image)?);
        Ok(Response::new(ImageStatusResponse { image: Some(image), info: HashMap::new() }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        let image_ref = named(request.into_inner().image)?;
        self.store.add_image(image_ref.clone());
        Ok(Response::new(PullImageResponse { image_ref }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.store.remove_image(&named(request.into_inner().image)?);
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Result<Response<ImageFsInfoResponse>, Status> {
        let usage = FilesystemUsage {
            timestamp: nanos(SystemTime::now()),
            fs_id: Some(FilesystemIdentifier { mountpoint: "/".to_owned() }),
            used_bytes: Some(UInt64Value { value: 0 }),
            inodes_used: Some(UInt64Value { value: 0 }),
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}

fn image(name: String) -> Image {
    let tags = if name.contains('@') { Vec::new() } else { vec![name.clone()] };
    Image { id: name, repo_tags: tags, size: SIZE, ..Image::default() }
}

fn named(image: Option<ImageSpec>) -> Result<String, Status> {
    match image.map(|image| name(&image.image)).filter(|name| !name.is_empty()) {
        Some(name) => Ok(name),
        None => Err(Status::invalid_argument("an image must have a name")),
    }
}

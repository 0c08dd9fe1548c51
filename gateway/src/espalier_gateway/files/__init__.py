"""Upload and download of files: `/api/v1/files`, in one request or resumable by the tus 1.0 protocol."""

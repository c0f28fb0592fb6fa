# The store of a rack: a bucket and a KMS key for its SSH keys, as `rackctl racks adopt --create` makes them.
# Terraform refuses to destroy either: without them nobody can log in to the instances.
#
# Add the tags of output "tags" to the aws_ecs_cluster. A cluster that another configuration manages is tagged by
# `rackctl racks adopt NAME --bucket BUCKET --kms-key KEY`; its next apply removes the tags unless it has them too.

variable "cluster" {
  type        = string
  description = "Name of the ECS cluster."
}

data "aws_partition" "current" {}

resource "aws_kms_key" "rackctl" {
  description         = "SSH keys of rackctl's rack ${var.cluster}"
  enable_key_rotation = true

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "rackctl" {
  name          = "alias/rackctl-${var.cluster}"
  target_key_id = aws_kms_key.rackctl.key_id
}

resource "aws_s3_bucket" "rackctl" {
  bucket_prefix = "rackctl-"

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "rackctl" {
  bucket = aws_s3_bucket.rackctl.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_public_access_block" "rackctl" {
  bucket                  = aws_s3_bucket.rackctl.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "rackctl" {
  bucket = aws_s3_bucket.rackctl.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.rackctl.arn
    }
  }
}

resource "aws_s3_bucket_policy" "rackctl" {
  bucket = aws_s3_bucket.rackctl.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "DenyRequestsWithoutTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource = [
        "arn:${data.aws_partition.current.partition}:s3:::${aws_s3_bucket.rackctl.id}",
        "arn:${data.aws_partition.current.partition}:s3:::${aws_s3_bucket.rackctl.id}/*",
      ]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

output "tags" {
  description = "Tags for the aws_ecs_cluster."
  value = {
    "rackctl:bucket"  = aws_s3_bucket.rackctl.id
    "rackctl:kms-key" = aws_kms_key.rackctl.arn
  }
}

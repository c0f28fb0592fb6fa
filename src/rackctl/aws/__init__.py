"""The only importer of boto3 and botocore: a session, a client, and one thin module a service.

Every method is one call (or one call a page), takes and returns the types of `rackctl.model`, and raises only the
errors of `rackctl.errors`.
"""

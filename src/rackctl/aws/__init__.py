"""The only importer of boto3 and botocore: a session, a client, and one thin module a service.

Every method is one call (or one call a page), takes and gives the types of `rackctl.model`, and raises only
`rackctl.errors`.
"""

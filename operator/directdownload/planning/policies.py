"""A Zone's `sourcePolicy` as the download engine takes it: for Jobs, and for the dry run of a deployment."""

from directdownload.resources.jobs import NFSUser, Policy
from directdownload.resources.zone import SourcePolicy


def engine_policy(policy: SourcePolicy) -> Policy:
    return Policy(
        protocols=policy.protocols,
        allowed_hosts=policy.allowed_hosts,
        allowed_cidrs=policy.allowed_cidrs,
        nfs_exports=policy.nfs_exports,
        nfs_user=NFSUser(uid=policy.nfs_user.uid, gid=policy.nfs_user.gid),
        max_redirects=policy.max_redirects,
        require_checksum=policy.require_checksum,
        require_direct=policy.require_direct,
        minimum_checksum=policy.minimum_checksum,
    )

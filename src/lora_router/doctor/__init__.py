"""Looks at a running router and says what is wrong or costs. ``docs/doctor.md`` has all findings.

``reading`` reads the pages of the admin port into ``facts``, which are plain records. Each other
module has the checks of one subject: functions from facts to findings, without I/O. ``examination``
runs all of them, and ``report`` prints what they found.
"""

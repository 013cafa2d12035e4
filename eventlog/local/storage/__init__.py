"""What lies in a log's directory, floor by floor; each floor stands on those below it.

::

    starting   make a log, or open one that an earlier writer left     reading   everybody's view
        |                                                                 |
    log        append, sync, delete                                       |
        |                                                                 |
        +--------- one module for each file of the directory (below) -----+
        |
    files, identity    the narrow doors to the operating system
        |
    formats    the bytes, and what they mean; pure

=================  ========================================================================
`formats`          what lies in the files, byte by byte; pure
`log`              the open log, as its writer has it
`reading`          the log as everybody else sees it
`starting`         making a log, and opening it for its writer
`control`          the control page: the marks that everybody reads
`offsets`          the offset table: consumers' positions
`states`           position and state of each consumer that has a state
`segment`          one segment, as its writer and its readers have it
`index`            the file of its index
`key_index`        the file of its index by key
`make_key_index`   making it
`active_keys`      what readers know of the keys of the active segment, and its file
`spare`            the file that becomes the next segment
`journal`          files of records: what groups did, and dead letters
`members`          the pages of the groups' members
`files`            the narrow door to the operating system
`identity`         who a process is
`owner`            whose a log is
`sharing`          with which group of users it is shared
=================  ========================================================================
"""

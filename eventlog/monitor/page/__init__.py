"""The page of `eventlog ui`; needs starlette and anycorn.

===========  ====================================================================
`serving`    the server: its socket, its token, its end
`guard`      who may ask: token, host, origin
`routes`     what may be asked: files, views, events, actions
`board`      the logs, and what is seen of them while somebody looks
`browsing`   events of a log: a screenful from a place, or live
===========  ====================================================================

`files/` is the page itself: no build step, nothing from elsewhere. `files/uplot.*` is uPlot
1.6.32 as its authors ship it (MIT, see `uplot.LICENSE.txt`).
"""

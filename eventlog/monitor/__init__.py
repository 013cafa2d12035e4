"""What a log does now, for people who look: `eventlog top` and its kin.

===========  ==================================================================
`sample`     what a log says of itself at one moment, by its public interface
`views`      what is shown of a log: rates, trends and times, out of two samples
`history`    the samples of the last seconds, and the views that they give; pure
`text`       views as lines, tables and JSON
`preview`    what a seek would change
`screen`     the terminal: needs textual
`page`       the page of `eventlog ui`: needs starlette and anycorn
`metrics`    metrics for Prometheus: needs prometheus-client
===========  ==================================================================

It goes through the public interface alone, so that it shows a log of any engine. What an engine
does not know is `None` in a view, and is left out of what is shown.
"""

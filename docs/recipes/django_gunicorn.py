"""Django under `gunicorn --preload -w 4 django_gunicorn:application`: logs open after the fork."""

import os
from functools import cache

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

from eventlog import blocking

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "for development"),
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING={
        "version": 1,
        "handlers": {"lines": {"class": "eventlog.logging_handler.Handler", "path": "lines"}},
        "root": {"handlers": ["lines"], "level": "INFO"},
    },
)


@cache
def orders():
    return blocking.open("orders")  # at a worker's first request: never in the process that forks


def order(request, product):
    return JsonResponse({"order": orders().append({"product": product, "pid": os.getpid()})})


urlpatterns = [path("order/<str:product>", order)]
application = get_wsgi_application()

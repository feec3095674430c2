"""The HTTP API (role `api`): routes and handlers, answered from records, the registry, the engine and the bus.

role        the role `api`: listens, and serves the application
routes      the table of all routes: the application, docs/http.md and the OpenAPI document are made from it
route       what a route is: method, path, query, body, answer, role needed, summary
parameters  the one parser of paths, queries and bodies
openapi     the OpenAPI 3.1 document of the table, and the table in docs/http.md
server      the application: registers the table; errors become problem documents
deployments, health, images, plans, ranges, registry, store   the routes and handlers of one noun each
backlog     how far the groups are behind, as metrics
"""

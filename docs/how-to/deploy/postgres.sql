-- As a superuser, once. The owner makes and upgrades the tables; the service logs in as the other role,
-- which is no superuser, has no BYPASSRLS and owns nothing, so that row security holds for it.
CREATE ROLE handful_owner LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD 'choose one';
CREATE ROLE handful_service LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD 'choose another';
CREATE DATABASE handful OWNER handful_owner ENCODING 'UTF8' TEMPLATE template0;

-- Customers are listed by name, a page at a time: from where the page before ended.
CREATE INDEX customers_by_name ON customers (name, tenant_id);
